"""A run whose results are in object storage: `-o s3://bucket/run`.

The run folder proper is on this machine: the *state folder*. Beside the run a thread copies what is committed there:

place      one prefix of a bucket: put, put only if new, read, list
lease      which machine writes there
sent       which part of the journal is there, kept in the state folder
join       brings the state folder up to date with what is there, at the start
uploads    files of results, then their journal lines in numbered segments
listing    which files of earlier results are there
mirror     all of that for one run
pulled     such a run, for commands that look at it
"""
