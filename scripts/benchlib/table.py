"""What was measured, for people: one aligned table."""

import statistics

HEAD = ["scenario", "way", "runs", "right", "seconds", "Mbit/s", "of limit", "lowest..highest", "first byte",
        "standstill", "afterwards", "CPU s/GiB", "memory", "idle", "remark"]


def median(runs, name):
    values = [run[name] for run in runs if run.get(name) is not None]
    return statistics.median(values) if values else None


def row(scenario, way, runs):
    def show(name, form, factor=1):
        value = median(runs, name)
        return "-" if value is None else form.format(value * factor)
    limits = [run["limit"] for run in runs if run.get("limit") is not None]
    worst = max((run["standstill"] for run in runs if run.get("standstill") is not None), default=None)
    right = sum(run["right"] for run in runs)
    return [
        scenario, way, str(sum(run.get("times", 1) for run in runs)), "yes" if right == len(runs) else f"{right}!",
        show("seconds", "{:.3f}" if (median(runs, "seconds") or 0) < 1 else "{:.2f}"), show("mbits", "{:.1f}"),
        show("limit", "{:.3f}"), f"{min(limits):.3f}..{max(limits):.3f}" if limits else "-",
        show("first_byte", "{:.1f} ms", 1000),
        "-" if worst is None else f"{show('standstill', '{:.2f}')}..{worst:.2f} s", show("afterwards", "{:.3f}"),
        show("cpu_per_gib", "{:.2f}"), show("peak_bytes", "{:.1f} MiB", 1 / (1 << 20)), show("idle", "{:.0f} %", 100),
        remark(runs),
    ]


def remark(runs):
    words = []
    if (later := median(runs, "later")) is not None:
        words.append(f"{later * 1000:+.1f} ms")
    if (share := median(runs, "own_limit")) is not None:
        words.append(f"{share:.3f} of the own link")
    sessions = [run["session"] for run in runs if "session" in run]
    if sessions:
        words += sorted({"not pooled" if session is None else session["outcome"] for session in sessions})
    words += sorted({run["complaint"] for run in runs if run["complaint"]})
    return "; ".join(words)


def table(results):
    rows = [HEAD] + [row(scenario, way, runs) for scenario, way, runs in results if runs]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    words = {0, 1, len(HEAD) - 1}
    return "\n".join("  ".join(cell.ljust(width) if i in words else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows)
