SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.decisions (
    seq bigint NOT NULL,
    at bigint NOT NULL,
    action character varying(32) NOT NULL,
    reason text NOT NULL,
    submitted boolean NOT NULL,
    run character varying(256)
);
CREATE SEQUENCE public.decisions_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.decisions_seq_seq OWNED BY public.decisions.seq;
CREATE TABLE public.erased (
    user_key character varying(32) NOT NULL,
    at bigint NOT NULL
);
CREATE TABLE public.feedback (
    seq bigint NOT NULL,
    id character varying(128) NOT NULL,
    at bigint NOT NULL,
    user_id character varying(256) NOT NULL,
    user_key character varying(32) NOT NULL,
    recommendation_id character varying(128),
    item character varying(256) NOT NULL,
    kind character varying(16) NOT NULL,
    share double precision
);
CREATE SEQUENCE public.feedback_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.feedback_seq_seq OWNED BY public.feedback.seq;
CREATE TABLE public.inferences (
    seq bigint NOT NULL,
    id character varying(160) NOT NULL,
    at bigint NOT NULL,
    service character varying(256) NOT NULL,
    kind character varying(16) NOT NULL,
    instances integer NOT NULL
);
CREATE SEQUENCE public.inferences_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.inferences_seq_seq OWNED BY public.inferences.seq;
CREATE TABLE public.measures (
    start bigint NOT NULL,
    stop bigint NOT NULL,
    release character varying(128) NOT NULL,
    name character varying(128) NOT NULL,
    value double precision
);
CREATE TABLE public.pasts (
    user_id character varying(256) NOT NULL,
    events text NOT NULL
);
CREATE TABLE public.progress (
    name character varying(64) NOT NULL,
    value bigint NOT NULL
);
CREATE TABLE public.recommendations (
    seq bigint NOT NULL,
    id character varying(128) NOT NULL,
    at bigint NOT NULL,
    user_id character varying(256) NOT NULL,
    user_key character varying(32) NOT NULL,
    release character varying(128) NOT NULL,
    history_length integer NOT NULL,
    history_at bigint,
    successors integer NOT NULL,
    leaked integer NOT NULL,
    generated integer NOT NULL,
    matched integer NOT NULL,
    seed character varying(20) NOT NULL,
    latency_ms double precision NOT NULL,
    degraded boolean NOT NULL,
    interests text NOT NULL,
    slots text NOT NULL
);
CREATE SEQUENCE public.recommendations_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.recommendations_seq_seq OWNED BY public.recommendations.seq;
ALTER TABLE ONLY public.decisions ALTER COLUMN seq SET DEFAULT nextval('public.decisions_seq_seq'::regclass);
ALTER TABLE ONLY public.feedback ALTER COLUMN seq SET DEFAULT nextval('public.feedback_seq_seq'::regclass);
ALTER TABLE ONLY public.inferences ALTER COLUMN seq SET DEFAULT nextval('public.inferences_seq_seq'::regclass);
ALTER TABLE ONLY public.recommendations ALTER COLUMN seq SET DEFAULT nextval('public.recommendations_seq_seq'::regclass);
INSERT INTO public.decisions VALUES (1, 1790856000000000, 'refresh', 'because', true, NULL);
INSERT INTO public.erased VALUES ('67c086f22bcb39bdb8b061572105317b', 1790856300000000);
INSERT INTO public.feedback VALUES (1, 'f1', 1790856120000000, '42', 'd1feb532ad40ac3a816d73516733735b', 'r1', '50', 'liked', NULL);
INSERT INTO public.feedback VALUES (2, 'f2', 1790856180000000, '43', '523368d4b3650103f8729c651ef141e0', NULL, '51', 'watched', 0.25);
INSERT INTO public.inferences VALUES (1, 'call-1:request', 1790856000000000, 'newfound', 'request', 3);
INSERT INTO public.measures VALUES (1, 2, 'all', 'slates', 2);
INSERT INTO public.pasts VALUES ('42', '[["7",1,1.0,true]]');
INSERT INTO public.progress VALUES ('histories', 2);
INSERT INTO public.recommendations VALUES (1, 'r1', 1790856000000000, '42', 'd1feb532ad40ac3a816d73516733735b', 'one', 0, 1790852400000000, 0, 0, 0, 0, '7', 2, false, '[]', '[{"position":0,"item":"50","cluster":"a","kind":"novel","propensity":0.5,"reason":"table","candidates":{},"floor":0.0,"eligible":0,"because":[],"score":null},{"position":1,"item":"51","cluster":"b","kind":"familiar","propensity":1.0,"reason":"familiar","candidates":{},"floor":0.0,"eligible":0,"because":[],"score":null}]');
INSERT INTO public.recommendations VALUES (2, 'r2', 1790856060000000, '43', '523368d4b3650103f8729c651ef141e0', 'one', 0, NULL, 0, 0, 0, 0, '7', 2, true, '[]', '[{"position":0,"item":"50","cluster":"a","kind":"novel","propensity":0.5,"reason":"table","candidates":{},"floor":0.0,"eligible":0,"because":[],"score":null},{"position":1,"item":"51","cluster":"b","kind":"familiar","propensity":1.0,"reason":"familiar","candidates":{},"floor":0.0,"eligible":0,"because":[],"score":null}]');
SELECT pg_catalog.setval('public.decisions_seq_seq', 1, true);
SELECT pg_catalog.setval('public.feedback_seq_seq', 3, true);
SELECT pg_catalog.setval('public.inferences_seq_seq', 1, true);
SELECT pg_catalog.setval('public.recommendations_seq_seq', 2, true);
ALTER TABLE ONLY public.decisions
    ADD CONSTRAINT decisions_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.erased
    ADD CONSTRAINT erased_pkey PRIMARY KEY (user_key);
ALTER TABLE ONLY public.feedback
    ADD CONSTRAINT feedback_id_key UNIQUE (id);
ALTER TABLE ONLY public.feedback
    ADD CONSTRAINT feedback_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.inferences
    ADD CONSTRAINT inferences_id_key UNIQUE (id);
ALTER TABLE ONLY public.inferences
    ADD CONSTRAINT inferences_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.measures
    ADD CONSTRAINT measures_pkey PRIMARY KEY (start, stop, release, name);
ALTER TABLE ONLY public.pasts
    ADD CONSTRAINT pasts_pkey PRIMARY KEY (user_id);
ALTER TABLE ONLY public.progress
    ADD CONSTRAINT progress_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.recommendations
    ADD CONSTRAINT recommendations_id_key UNIQUE (id);
ALTER TABLE ONLY public.recommendations
    ADD CONSTRAINT recommendations_pkey PRIMARY KEY (seq);
CREATE INDEX feedback_user ON public.feedback USING btree (user_id, at);
CREATE INDEX ix_feedback_at ON public.feedback USING btree (at);
CREATE INDEX ix_inferences_at ON public.inferences USING btree (at);
CREATE INDEX ix_recommendations_at ON public.recommendations USING btree (at);
CREATE INDEX ix_recommendations_user_id ON public.recommendations USING btree (user_id);
