// Puts, reads and deletes a key, with the .proto files alone: nothing is generated.
//
//     npm ci --prefix examples/node
//     node examples/node/kv.js 127.0.0.1:50051
'use strict';

const path = require('node:path');
const {promisify} = require('node:util');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const protobuf = require('protobufjs');

const ROOT = path.join(__dirname, '..', '..');
const TENANT = 'default';

const {pairdb} = grpc.loadPackageDefinition(
  loader.loadSync('pairdb/v1/kv.proto', {includeDirs: [path.join(ROOT, 'api')], keepCase: true, longs: String, enums: String}));
const google = protobuf.loadSync(path.join(ROOT, 'examples/proto/google/rpc/status.proto'));
const Status = google.lookupType('google.rpc.Status');
const ErrorInfo = google.lookupType('google.rpc.ErrorInfo');

// reason returns the code of an error: never guess it from its text.
function reason(error) {
  for (const raw of error.metadata ? error.metadata.get('grpc-status-details-bin') : []) {
    for (const detail of Status.decode(raw).details) {
      if (detail.type_url !== 'type.googleapis.com/google.rpc.ErrorInfo') continue;
      const info = ErrorInfo.decode(detail.value);
      if (info.domain === 'pairdb') return info.reason;
    }
  }
  return undefined;
}

async function main(endpoint) {
  const client = new pairdb.v1.KV(endpoint, grpc.credentials.createInsecure());
  const call = (method) => {
    const f = promisify(client[method]).bind(client);
    // Without a deadline a call may wait for ever.
    return (request) => f({tenant_id: TENANT, ...request}, {deadline: Date.now() + 10_000});
  };
  const [put, get, del] = ['Put', 'Get', 'Delete'].map(call);
  const key = Buffer.from('node\x00\xff', 'latin1');

  await put({key, value: Buffer.from('one')});
  const first = await get({key});
  console.log('read', first.siblings[0].value.toString());

  // The context of an answer: the write replaces exactly what that answer had seen.
  const {acks} = await put({key, value: Buffer.from('two'), context: first.context, consistency: 'CONSISTENCY_ALL'});
  const second = await get({key});
  console.log('read', second.siblings[0].value.toString(), 'from', second.siblings.length, 'sibling,', acks, 'acks');

  await del({key, context: second.context});
  await get({key}).catch((error) => console.log('refused', reason(error)));
  await put({tenant_id: 'nobody', key, value: Buffer.from('x')}).catch((error) => console.log('refused', reason(error)));
  client.close();
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
