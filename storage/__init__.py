"""Where things are kept: the spool on disk, blobs, the database and the engine that does its jobs."""
