"""Puts, reads and deletes a key, with code made from the .proto files alone.

    python3 -m grpc_tools.protoc -I api -I examples/proto --python_out=gen --grpc_python_out=gen \\
        pairdb/v1/kv.proto google/rpc/status.proto
    PYTHONPATH=gen python3 examples/python/kv.py 127.0.0.1:50051
"""
import sys

import grpc
from google.rpc import status_pb2
from pairdb.v1 import kv_pb2, kv_pb2_grpc

TENANT = "default"
TIMEOUT = 10  # seconds; without one a call may wait for ever


def reason(error):
    """Returns the code and the details of an error: never guess them from its text."""
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = status_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == "pairdb":
                    return info.reason, dict(info.metadata)
    return None, {}


def main(endpoint):
    with grpc.insecure_channel(endpoint) as channel:
        kv = kv_pb2_grpc.KVStub(channel)
        key = b"python\x00\xff"

        kv.Put(kv_pb2.PutRequest(tenant_id=TENANT, key=key, value=b"one"), timeout=TIMEOUT)
        first = kv.Get(kv_pb2.GetRequest(tenant_id=TENANT, key=key), timeout=TIMEOUT)
        print("read", first.siblings[0].value)

        # The context of an answer: the write replaces exactly what that answer had seen.
        put = kv_pb2.PutRequest(
            tenant_id=TENANT, key=key, value=b"two", context=first.context, consistency=kv_pb2.CONSISTENCY_ALL)
        acks = kv.Put(put, timeout=TIMEOUT).acks
        second = kv.Get(kv_pb2.GetRequest(tenant_id=TENANT, key=key), timeout=TIMEOUT)
        print("read", second.siblings[0].value, "from", len(second.siblings), "sibling,", acks, "acks")

        kv.Delete(kv_pb2.DeleteRequest(tenant_id=TENANT, key=key, context=second.context), timeout=TIMEOUT)
        try:
            kv.Get(kv_pb2.GetRequest(tenant_id=TENANT, key=key), timeout=TIMEOUT)
        except grpc.RpcError as error:
            print("refused", reason(error)[0])
        try:
            kv.Put(kv_pb2.PutRequest(tenant_id="nobody", key=key, value=b"x"), timeout=TIMEOUT)
        except grpc.RpcError as error:
            print("refused", reason(error)[0])


if __name__ == "__main__":
    main(sys.argv[1])
