#!/usr/bin/perl
# put_ssh2.pl HOST PORT USER KEY KNOWN_HOSTS TASK LOCAL REMOTE [FINAL]; Net::SSH2, that is libssh2
use strict;
use warnings;
use Fcntl;
use Net::SSH2;

my ($host, $port, $user, $key, $known_hosts, $task, $local, $remote, $final) = @ARGV;
my $ssh = Net::SSH2->new();
$ssh->connect($host, $port) or $ssh->die_with_error('connect');
$ssh->check_hostkey('strict', $known_hosts) or $ssh->die_with_error('host key');
$ssh->auth_publickey($user, "$key.pub", $key) or $ssh->die_with_error('login');
my $sftp = $ssh->sftp() or $ssh->die_with_error('sftp');
open(my $file, '<:raw', $local) or die "$local: $!\n";
my $handle = $sftp->open($remote, O_WRONLY | O_CREAT | O_TRUNC, 0644) or $sftp->die_with_error('open');
while (read($file, my $block, 32_768)) {
    my $start = 0;
    while ($start < length $block) {
        my $written = $handle->write(substr $block, $start);
        defined $written or $sftp->die_with_error('write');
        $start += $written;
    }
}
undef $handle;    # closes; the module tells nobody how that went
if ($task eq 'rename') {
    $sftp->rename($remote, $final) or $sftp->die_with_error('rename');
}
