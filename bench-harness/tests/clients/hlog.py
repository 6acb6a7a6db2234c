"""Prints the intervals of a histogram log as HdrHistogram's port for Python reads them.

Usage: hlog.py FILE; a line each: tag, start and end in milliseconds since the epoch, count, p50, p99, max.
"""

import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 60_000_000_000, 3))
while (interval := reader.get_next_interval_histogram()) is not None:
    print(
        "interval",
        interval.get_tag(),
        round(interval.get_start_time_stamp()),
        round(interval.get_end_time_stamp()),
        interval.get_total_count(),
        interval.get_value_at_percentile(50),
        interval.get_value_at_percentile(99),
        interval.get_max_value(),
    )
print("hlog: ok")
