"""How fast a configuration runs on this machine (`throughput`), and where the time of a step goes (`profile`)."""
