"""What apt and pip say when they fail, as the one thing that is wrong and what mends it."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and what mends it."""

    reason: str
    remedy: str


_UNREACHABLE = (
    r"Temporary failure (?:in name )?resol\w+|Could not resolve|Name or service not known"
    r"|Failed to resolve|No address associated|Connection refused|Connection timed out"
    r"|Could not connect|Unable to connect|Network is unreachable|No route to host"
    r"|Connection failed|NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProxyError"
    r"|Read timed out"
)
_NETWORK = "is the network up, and are proxies set (http_proxy, https_proxy, apt's and pip's own)?"

# The first that matches anywhere is the cause; what follows from a cause stands below it.
_TABLE = (
    (
        r"No space left on device|don't have enough free space in (?P<thing>\S+?)\.?$",
        "no space is left on the disk{of}",
        "free some (`apt-get clean` empties apt's cache)",
    ),
    (r"Read-only file system", "the file system is read-only", "remount it, or use another"),
    (
        r"Could not get lock (?P<thing>\S+?)\.?(?: It is held by process (?P<more>[^\n]+))?$",
        "another program holds {thing}{by}",
        "wait for it to end, then run this again",
    ),
    (
        r"dpkg was interrupted",
        "an earlier installation was interrupted",
        "run `dpkg --configure -a` as root, then this again",
    ),
    (
        r"--fix-broken|unmet dependencies|held broken packages",
        "packages of this system do not fit together",
        "run `apt-get --fix-broken install` as root, then this again",
    ),
    (
        r"not valid yet|is expired|certificate is not yet valid|certificate has expired",
        "what the registry sends is not valid at this date",
        "is this system's clock right?",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|[Cc]ertificate verif\w+|certificate is NOT trusted",
        "the registry's certificate cannot be verified",
        "install the package ca-certificates, or name your own authority (PIP_CERT, apt's CaInfo)",
    ),
    (
        r"NO_PUBKEY|is not signed|couldn't be verified|Missing key",
        "the signature of an archive in apt's sources cannot be verified",
        "install the package debian-archive-keyring, or that archive's key",
    ),
    (
        r"(Failed to fetch|Err:|HTTP error|Client Error).*?\b(?P<thing>401|403|404|407)\b",
        "the registry refuses what is asked for ({thing})",
        _NETWORK,
    ),
    (_UNREACHABLE, "the registry cannot be reached", _NETWORK),
    (
        r"Unable to locate package (?P<thing>\S+)|'(?P<other>\S+)' has no installation candidate",
        "apt's archives have no package {thing}",
        "do its sources name this release's own archives, with `main`?",
    ),
    (
        r"No matching distribution found for (?P<thing>\S+)",
        "pip found no {thing} for this Python",
        "is the registry reached? Python 3.11 to 3.14 are served, and PYTHON names another one",
    ),
    (
        r"Package libvirt was not found|libvirt/libvirt\.h: No such file",
        "libvirt's headers are not installed",
        "install the package libvirt-dev (Fedora: libvirt-devel)",
    ),
    (
        r"error: command '?(?P<thing>[^\s']+)'? failed|Failed building wheel for (?P<other>\S+)",
        "a Python package could not be compiled ({thing})",
        "see the log",
    ),
    (r"Permission denied", "a file may not be written", "are all files of this checkout yours?"),
)


def explain(log: str) -> Fault | None:
    """The cause that the output of apt or pip names; None if it is none that is known. Pure."""
    for pattern, reason, remedy in _TABLE:
        if match := re.search(pattern, log, re.MULTILINE):
            words = {name: value or "" for name, value in match.groupdict().items()}
            thing = words.get("thing") or words.get("other") or ""
            more = words.get("more", "")
            of, by = (f": {thing}" if thing else ""), (f" (process {more})" if more else "")
            return Fault(reason.format(thing=thing, of=of, by=by), remedy)
    return None
