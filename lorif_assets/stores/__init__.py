"""Files in object stores, read through copies on this machine."""
