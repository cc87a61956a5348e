"""What runs by itself: sensors, jobs, planning of runs, and the runs of processes that died."""
