"""What users get wrong, a list for each kind of thing; test_malformed.py tries every one."""
