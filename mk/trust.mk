.PHONY: durability fuzz audit

OSV_URL ?= https://api.osv.dev/v1/query

durability: setup system ## crashes, file faults, kill loops, histories: 100,000 events, 1,000 crash points, nothing lost
	@$(BIN)/python -m tests.durability

fuzz: setup ## a million inputs that coverage leads to, in bounded memory, against all that reads others' bytes
	@$(BIN)/python -m tests.fuzz

audit: setup ## known vulnerabilities of the locked packages; says so where their list is out of reach (OSV_URL=)
	@$(BIN)/python mk/audit.py requirements.lock $(OSV_URL)
