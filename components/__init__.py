"""KFP components, one file each: import, call the library, log what it measured."""
