"""A run on a Slurm cluster: the driver submits tasks, tasks make shards, receipts decide."""
