"""Values for running services, and what came of them. HTTP only; `simulate` speaks to nobody."""
