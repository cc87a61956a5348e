"""Delta tables and tensor files: schemas, reading, atomic writing, snapshots."""
