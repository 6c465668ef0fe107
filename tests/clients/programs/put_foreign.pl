#!/usr/bin/perl
# put_foreign.pl HOST PORT USER KEY KNOWN_HOSTS TASK LOCAL REMOTE [FINAL]; Net::SFTP::Foreign over OpenSSH's ssh
use strict;
use warnings;
use Net::SFTP::Foreign;

my ($host, $port, $user, $key, $known_hosts, $task, $local, $remote, $final) = @ARGV;
my $sftp = Net::SFTP::Foreign->new(
    $host, port => $port, user => $user, key_path => $key, timeout => 60,
    more => ['-F', 'none', '-o', 'BatchMode=yes', '-o', 'IdentitiesOnly=yes', '-o', "UserKnownHostsFile=$known_hosts"],
);
$sftp->die_on_error('connect');
$sftp->put($local, $task eq 'rename' ? $final : $remote, atomic => $task eq 'rename', resume => $task eq 'resume')
    or die 'put: ' . $sftp->error . "\n";
