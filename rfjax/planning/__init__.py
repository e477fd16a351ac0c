"""What a study would need on machines that are not here: memory, communication, time. `job.run` is the job `plan`."""
