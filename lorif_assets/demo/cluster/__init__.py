"""The demo on a cluster that is all in this machine: Ray, Postgres and an object store, beside the same run without them."""
