"""Who is told of a run besides the screen: collectors of OpenTelemetry spans, and trackers of metrics."""
