"""`python -m multitask_train compare`: strategies × balancers × seeds from one file."""
