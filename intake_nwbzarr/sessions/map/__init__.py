"""Call a function with each session, on threads or a cluster, and keep the results."""
