"""What tests/bench/run.py is made of: contenders, workloads, goals and the report."""
