"""Development tools of ems-bots: a local cluster, test services, the image. Start with `dev/run --help`."""
