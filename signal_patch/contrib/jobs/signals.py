"""The signal that reports the progress of jobs."""

from __future__ import annotations

from django.dispatch import Signal

# Sent after each step has committed. The sender is the job's class; the arguments are `job_id`, `lane_id`,
# `rows` (changed by this step), `seconds` (that it took) and `is_lane_done`.
job_progressed = Signal()
