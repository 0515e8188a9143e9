"""`pocketvit doctor`: whether a run would work, before it is started."""
