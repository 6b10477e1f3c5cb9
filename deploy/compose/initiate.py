"""Makes a mongod the first member of its replica set, and waits until it takes writes; once.

python initiate.py HOST:PORT SET
"""

import sys
import time

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

WAIT_S = 60


def initiate(address: str, replica_set: str) -> None:
    """Initiate the set with this member, by the name that other containers know it by.

    Raises:
        SystemExit: it takes no writes in time; with the reason.
    """
    host, _, port = address.rpartition(":")
    member = {"_id": 0, "host": address}
    give_up, reason = time.monotonic() + WAIT_S, "it does not become the primary"
    with MongoClient(host, int(port), directConnection=True, serverSelectionTimeoutMS=2_000) as client:
        while time.monotonic() < give_up:
            try:
                said = client.admin.command("hello")
                if said["isWritablePrimary"]:
                    print(f"{address} is the primary of {said['setName']}")
                    return
                if "setName" not in said:
                    client.admin.command("replSetInitiate", {"_id": replica_set, "members": [member]})
            except OperationFailure as error:  # another one did it, or it is loading what it was
                reason = str(error.details.get("errmsg", error) if error.details else error)
            except PyMongoError as error:
                reason = str(error)
            time.sleep(0.5)
    sys.exit(f"{address} takes no writes after {WAIT_S} seconds: {reason}")


if __name__ == "__main__":
    initiate(*sys.argv[1:])
