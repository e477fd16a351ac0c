"""The job `plan` (`job.run`): the memory, communication and time that a study needs on other machines."""
