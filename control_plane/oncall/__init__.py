"""What on-call engineers get: alerts with their numbers and next step, and the runbook behind each. Pure."""
