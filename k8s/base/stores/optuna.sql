-- Run once, on an empty volume: the studies of Optuna beside the store of events.
CREATE DATABASE optuna;
