#!/usr/bin/env python3
"""A selector: prints one JSON object that says what is worth doing. Edit what is between the lines."""

import json
import os

# Under LOOP_DRY_RUN=1 (loop plan, loop doctor) nothing may be changed; this script changes nothing anyway.
dry_run = os.environ.get("LOOP_DRY_RUN") == "1"

# ── edit from here ────────────────────────────────────────────────────────────────────────────────
# The tasks at hand, best first, as (id, category); from your tracker, your queue, your files.
tasks = [("fix-login", "code")]

# What every category is worth without a task; those at zero and below are not offered.
scores = {"code": 1.0, "triage": 0.5}
# ── to here ───────────────────────────────────────────────────────────────────────────────────────

# Tier 1: a task is at hand. Tier 3: only the scores speak.
answer: dict[str, object] = {"tier": 1 if tasks else 3}

if tasks:
    task, category = tasks[0]
    answer["selected"] = {"id": task, "category": category}

# Behind the first: the other tasks, in their order. A category counts where it is named first.
answer["alternatives"] = [{"id": task, "category": category} for task, category in tasks[1:]]

# Last the scores, the best first. {"all_scores": {}} alone would say: nothing is worth starting.
answer["all_scores"] = scores

print(json.dumps(answer))
