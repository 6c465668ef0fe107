# put_ruby.rb HOST PORT USER KEY KNOWN_HOSTS TASK LOCAL REMOTE [FINAL]
require 'net/sftp'

host, port, user, key, known_hosts, task, local, remote, final = ARGV
options = { port: port.to_i, keys: [key], keys_only: true, config: false, use_agent: false,
            non_interactive: true, user_known_hosts_file: known_hosts, verify_host_key: :always }
Net::SFTP.start(host, user, options) do |sftp|
  sftp.upload!(local, remote)
  sftp.rename!(remote, final) if task == 'rename'
end
