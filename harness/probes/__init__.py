"""What is read from a host and an instance around a trial; a probe knows no concrete driver."""
