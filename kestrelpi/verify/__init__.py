"""`kestrelpi verify`: does the cluster compute? Each check runs what a user would run."""
