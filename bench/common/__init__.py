"""What all benchmarks share: contests, the machine, files of results, worker processes."""
