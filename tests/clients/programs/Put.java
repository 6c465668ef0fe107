// Put.java HOST PORT USER KEY KNOWN_HOSTS TASK LOCAL REMOTE [FINAL]; JSch as Debian has it (0.1.54), and as old schedulers do
import com.jcraft.jsch.ChannelSftp;
import com.jcraft.jsch.JSch;
import com.jcraft.jsch.Session;
import com.jcraft.jsch.SftpProgressMonitor;

public class Put {
  // Presses "cancel" after 400,000 bytes.
  static class Cancelling implements SftpProgressMonitor {
    private long sent = 0;

    public void init(int operation, String from, String to, long size) {}

    public boolean count(long bytes) {
      sent += bytes;
      return sent < 400_000;
    }

    public void end() {}
  }

  public static void main(String[] a) throws Exception {
    JSch jsch = new JSch();
    jsch.addIdentity(a[3]);
    jsch.setKnownHosts(a[4]);
    Session session = jsch.getSession(a[2], a[0], Integer.parseInt(a[1]));
    session.setConfig("server_host_key", "ecdsa-sha2-nistp256");
    session.connect();
    try {
      ChannelSftp sftp = (ChannelSftp) session.openChannel("sftp");
      sftp.connect();
      int mode = a[5].equals("resume") ? ChannelSftp.RESUME : ChannelSftp.OVERWRITE;
      sftp.put(a[6], a[7], a[5].equals("cancel") ? new Cancelling() : null, mode);
      if (a[5].equals("rename")) sftp.rename(a[7], a[8]);
    } finally {
      session.disconnect();
    }
  }
}
