"""Base against head: two revisions measured in turns on the same machine."""
