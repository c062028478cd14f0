BEGIN TRANSACTION;
CREATE TABLE decisions (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at BIGINT NOT NULL, 
	action VARCHAR(32) NOT NULL, 
	reason TEXT NOT NULL, 
	submitted BOOLEAN NOT NULL, 
	run VARCHAR(256)
);
INSERT INTO "decisions" VALUES(1,1790856000000000,'refresh','because',1,NULL);
CREATE TABLE erased (
	user_key VARCHAR(32) NOT NULL, 
	at BIGINT NOT NULL, 
	PRIMARY KEY (user_key)
);
INSERT INTO "erased" VALUES('67c086f22bcb39bdb8b061572105317b',1790856300000000);
CREATE TABLE feedback (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(128) NOT NULL, 
	at BIGINT NOT NULL, 
	user_id VARCHAR(256) NOT NULL, 
	user_key VARCHAR(32) NOT NULL, 
	recommendation_id VARCHAR(128), 
	item VARCHAR(256) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	share FLOAT, 
	UNIQUE (id)
);
INSERT INTO "feedback" VALUES(1,'f1',1790856120000000,'42','d1feb532ad40ac3a816d73516733735b','r1','50','liked',NULL);
INSERT INTO "feedback" VALUES(2,'f2',1790856180000000,'43','523368d4b3650103f8729c651ef141e0',NULL,'51','watched',0.25);
CREATE TABLE inferences (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(160) NOT NULL, 
	at BIGINT NOT NULL, 
	service VARCHAR(256) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	instances INTEGER NOT NULL, 
	UNIQUE (id)
);
INSERT INTO "inferences" VALUES(1,'call-1:request',1790856000000000,'newfound','request',3);
CREATE TABLE measures (
	start BIGINT NOT NULL, 
	stop BIGINT NOT NULL, 
	release VARCHAR(128) NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	value FLOAT, 
	PRIMARY KEY (start, stop, release, name)
);
INSERT INTO "measures" VALUES(1,2,'all','slates',2.0);
CREATE TABLE pasts (
	user_id VARCHAR(256) NOT NULL, 
	events TEXT NOT NULL, 
	PRIMARY KEY (user_id)
);
INSERT INTO "pasts" VALUES('42','[["7",1,1.0,true]]');
CREATE TABLE progress (
	name VARCHAR(64) NOT NULL, 
	value BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "progress" VALUES('histories',2);
CREATE TABLE recommendations (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(128) NOT NULL, 
	at BIGINT NOT NULL, 
	user_id VARCHAR(256) NOT NULL, 
	user_key VARCHAR(32) NOT NULL, 
	release VARCHAR(128) NOT NULL, 
	history_length INTEGER NOT NULL, 
	history_at BIGINT, 
	successors INTEGER NOT NULL, 
	leaked INTEGER NOT NULL, 
	generated INTEGER NOT NULL, 
	matched INTEGER NOT NULL, 
	seed VARCHAR(20) NOT NULL, 
	latency_ms FLOAT NOT NULL, 
	degraded BOOLEAN NOT NULL, 
	interests TEXT NOT NULL, 
	slots TEXT NOT NULL, 
	UNIQUE (id)
);
INSERT INTO "recommendations" VALUES(1,'r1',1790856000000000,'42','d1feb532ad40ac3a816d73516733735b','one',0,1790852400000000,0,0,0,0,'7',2.0,0,'[]','[{"position":0,"item":"50","cluster":"a","kind":"novel","propensity":0.5,"reason":"table","candidates":{},"floor":0.0,"eligible":0,"because":[],"score":null},{"position":1,"item":"51","cluster":"b","kind":"familiar","propensity":1.0,"reason":"familiar","candidates":{},"floor":0.0,"eligible":0,"because":[],"score":null}]');
INSERT INTO "recommendations" VALUES(2,'r2',1790856060000000,'43','523368d4b3650103f8729c651ef141e0','one',0,NULL,0,0,0,0,'7',2.0,1,'[]','[{"position":0,"item":"50","cluster":"a","kind":"novel","propensity":0.5,"reason":"table","candidates":{},"floor":0.0,"eligible":0,"because":[],"score":null},{"position":1,"item":"51","cluster":"b","kind":"familiar","propensity":1.0,"reason":"familiar","candidates":{},"floor":0.0,"eligible":0,"because":[],"score":null}]');
CREATE INDEX ix_recommendations_at ON recommendations (at);
CREATE INDEX ix_recommendations_user_id ON recommendations (user_id);
CREATE INDEX feedback_user ON feedback (user_id, at);
CREATE INDEX ix_feedback_at ON feedback (at);
CREATE INDEX ix_inferences_at ON inferences (at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('recommendations',2);
INSERT INTO "sqlite_sequence" VALUES('feedback',3);
INSERT INTO "sqlite_sequence" VALUES('inferences',1);
INSERT INTO "sqlite_sequence" VALUES('decisions',1);
COMMIT;
