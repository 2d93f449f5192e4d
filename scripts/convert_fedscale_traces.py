#!/usr/bin/env python3
"""Converts a trace of FedScale (client_device_capacity or client_behave_trace, pickles of Python) to the
JSON that fleet.capacity-trace and fleet.availability-trace read.

  scripts/convert_fedscale_traces.py IN.pkl OUT.json

A pickle is a program; this reads only containers and numbers out of it, and refuses everything else.
"""
import argparse
import json
import math
import os
import pickle
import sys

FIELDS = {"computation", "communication", "duration", "active", "inactive", "finish_time"}


class ContainersOnly(pickle.Unpickler):
    """Lets a pickle make dictionaries, lists, texts and numbers, and call nothing at all."""

    # numpy's numbers would be found here too: FedScale's traces have none.
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it wants to call {module}.{name}, which no trace needs")

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it refers to something outside of itself")


def number(value, where):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{where} is no finite number: {value!r:.60}")
    return value


def device(identity, fields):
    if not isinstance(fields, dict):
        raise ValueError(f"device {identity} is no dictionary: {fields!r:.60}")
    kept = {}
    for name, value in fields.items():
        if name not in FIELDS:
            continue  # such as the phone's model
        where = f"device {identity}: {name}"
        if isinstance(value, (list, tuple)):
            kept[name] = [number(one, f"{where}[{i}]") for i, one in enumerate(value)]
        else:
            kept[name] = number(value, where)
    if not kept:
        raise ValueError(f"device {identity} has none of {', '.join(sorted(FIELDS))}")
    return kept


def convert(trace):
    if not isinstance(trace, dict) or not trace:
        raise ValueError("a trace is a dictionary of devices, and not empty")
    devices = {}
    for identity, fields in trace.items():
        text = str(identity)
        if isinstance(identity, bool) or not text.isascii() or not text.isdigit():
            raise ValueError(f"{identity!r:.60} is no device's number")
        if text in devices:
            raise ValueError(f"device {text} is there twice")
        devices[text] = device(text, fields)
    return devices


def write(devices, path):
    """All of it or nothing: a file that is there holds every device."""
    unfinished = path + ".part"
    with open(unfinished, "w", encoding="ascii") as file:
        file.write("{\n")
        rows = (f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in devices.items())
        file.write(",\n".join(rows))
        file.write("\n}\n")
    os.replace(unfinished, path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="IN.pkl")
    parser.add_argument("output", metavar="OUT.json")
    options = parser.parse_args()
    if not options.output.endswith(".json"):
        parser.error(f"{options.output}: the name of the trace that is written ends in .json")
    try:
        with open(options.input, "rb") as file:
            devices = convert(ContainersOnly(file).load())
        write(devices, options.output)
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
    except Exception as error:  # a broken pickle raises anything
        sys.exit(f"{options.input}: {error or type(error).__name__}")
    print(f"{options.output}: {len(devices)} devices")


if __name__ == "__main__":
    main()
