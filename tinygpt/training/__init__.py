"""The step, the loop around it, and what is planned before. Uses data, models and runs."""
