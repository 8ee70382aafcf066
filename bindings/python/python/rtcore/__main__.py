"""``python3 -m rtcore``: statistics, messages and plots of an instance, from a shell."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence

import rtcore


def _stats(args: argparse.Namespace) -> None:
    page = rtcore.stats(args.instance)
    if args.json:
        print(json.dumps(page, indent=2))
        return
    print(f"{page['instance']}: {page['state']}, up {page['uptime_s']:.0f} s, pid {page['pid']}")
    print(f"{'ROUTE':<24}{'ACCEPTED':>12}{'DELIVERED':>12}{'P50 us':>10}{'P99 us':>10}{'MAX us':>10}")
    for route in page["routes"]:
        p50, p99, largest = (route["latency_ns"][key] / 1000 for key in ("p50", "p99", "max"))
        print(
            f"{route['name']:<24}{route['accepted']:>12}{route['delivered']:>12}"
            f"{p50:>10.1f}{p99:>10.1f}{largest:>10.1f}"
        )


def _owner(instance: str, endpoint: str, role: str) -> str:
    """The process that has the endpoint; its name is what a session takes."""
    known = {known["name"]: known for known in rtcore.stats(instance)["endpoints"]}
    found = known.get(endpoint)
    if found is None:
        raise rtcore.Unknown(2, f"no endpoint {endpoint!r}; there are: {', '.join(known)}")
    if found["kind"] != "lane" or not found[role]:
        other = "rtctl send" if role == "source" else "rtctl listen"
        raise rtcore.Unknown(
            2,
            f"{endpoint!r} is a {found['kind']} endpoint and no {role} of a session: use {other}",
        )
    return str(found["owner"])


def _print(m: rtcore.Message | rtcore.Event) -> None:
    if isinstance(m, rtcore.Event):
        print(f"event {m.kind}: {m.text}", flush=True)
    else:
        missed = f", {m.missed} missed" if m.missed else ""
        print(
            f"{m.endpoint} from {m.source} pid {m.origin.pid} #{m.sequence}"
            f" {m.latency_ns / 1000:.1f} us{missed}: {m.data!r}",
            flush=True,
        )


def _listen(args: argparse.Namespace) -> None:
    process = args.process or _owner(args.instance, args.endpoint[0], "sink")
    with rtcore.Session(process, instance=args.instance) as session:
        left = args.count
        for m in session.inbox(args.endpoint):
            _print(m)
            if isinstance(m, rtcore.Message) and left:
                left -= 1
                if left == 0:
                    return


def _send(args: argparse.Namespace) -> None:
    data = bytes.fromhex(args.data) if args.hex else args.data.encode()
    process = args.process or _owner(args.instance, args.endpoint, "source")
    with rtcore.Session(process, instance=args.instance) as session:
        sender = session.sender(args.endpoint)
        sender.wait_for_receiver(args.timeout)
        print(f"sent as number {sender.send(data)}")
        # Until it is taken, only this process has it.
        sender.flush(args.timeout)


def _plot(args: argparse.Namespace) -> None:
    try:
        plt = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise SystemExit(
            "rtcore plot: matplotlib is not installed: pip install matplotlib"
            " (python3 -m rtcore stats prints the quantiles without it)"
        ) from None
    plt.switch_backend("Agg")
    names = args.route or [
        route["name"]
        for route in rtcore.stats(args.instance)["routes"]
        if route["latency_ns"]["count"]
    ]
    if not names:
        raise SystemExit(f"rtcore plot: no route of {args.instance} has a latency yet")
    figure, axes = plt.subplots(figsize=(9, 5))
    for name in names:
        h = rtcore.histogram(args.instance, name)
        axes.step([high / 1000 for high in h.high_ns], list(h.count), where="mid", label=name)
    axes.set(xscale="log", yscale="log", xlabel="latency, us", ylabel="messages", title=args.instance)
    axes.legend()
    figure.savefig(args.output)
    print(args.output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m rtcore", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, about: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about)
        one.add_argument("instance", metavar="INSTANCE", help="[daemon] name of the configuration")
        one.set_defaults(run=run)
        return one

    stats = command("stats", _stats, "Print the counters and latencies of each route")
    stats.add_argument("--json", action="store_true", help="print everything as JSON")

    listen = command("listen", _listen, "Receive at lane endpoints as their owner, and print")
    listen.add_argument("endpoint", nargs="+", metavar="ENDPOINT")
    listen.add_argument("--as", dest="process", metavar="PROCESS", help="default: the owner")
    listen.add_argument("--count", type=int, default=0, metavar="N", help="end after N messages")

    send = command("send", _send, "Send one message from a lane endpoint as its owner")
    send.add_argument("endpoint", metavar="ENDPOINT")
    send.add_argument("data", metavar="DATA", help="the bytes, as text")
    send.add_argument("--as", dest="process", metavar="PROCESS", help="default: the owner")
    send.add_argument("--hex", action="store_true", help="DATA is hexadecimal")
    send.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="default: 5")

    plot = command("plot", _plot, "Draw the latency histograms of routes into a file")
    plot.add_argument("-o", "--output", default="latency.png", metavar="FILE", help="default: %(default)s")
    plot.add_argument("--route", action="append", metavar="ROUTE", help="default: all with messages")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except rtcore.Error as error:
        print(f"rtcore: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
