// put_node.js HOST PORT USER KEY HOST_KEY_SHA256 TASK LOCAL REMOTE [FINAL]
const fs = require('fs');
const crypto = require('crypto');
const Client = require('ssh2-sftp-client');

const [host, port, username, key, expected, task, local, remote, final] = process.argv.slice(2);
const hostVerifier = (found) =>
  `SHA256:${crypto.createHash('sha256').update(found).digest('base64').replace(/=+$/, '')}` === expected;

(async () => {
  const sftp = new Client();
  try {
    await sftp.connect({
      host, port: Number(port), username, privateKey: fs.readFileSync(key), hostVerifier,
      algorithms: { serverHostKey: ['ssh-ed25519'] },
    });
    await sftp.put(local, remote);
    if (task === 'rename') await sftp.posixRename(remote, final);
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  } finally {
    await sftp.end();
  }
})();
