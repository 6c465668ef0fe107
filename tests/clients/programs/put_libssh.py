"""put_libssh.py HOST PORT USER KEY KNOWN_HOSTS TASK LOCAL REMOTE; ansible-pylibssh, the binding that Ansible uses."""

import sys
from pathlib import Path

from pylibsshext.session import Session

host, port, user, key, known_hosts, _task, local, remote = sys.argv[1:]
session = Session()
session.connect(host=host, port=int(port), user=user, private_key=Path(key).read_bytes(), knownhosts=known_hosts)
sftp = session.sftp()
sftp.put(local, remote)
sftp.close()
session.close()
