"""`method="blocks"`: blocks of queries against the blocks of keys that they see."""
