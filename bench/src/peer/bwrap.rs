//! bubblewrap with every namespace, the host's `/usr` read-only, its own `/proc`, `/dev` and `/tmp`.

use super::first_line;

/// The command line that runs `command` in it, or why bubblewrap is not here.
pub(crate) fn argv(command: &[&str]) -> Result<Vec<String>, String> {
    first_line("bwrap", &["--version"])?;
    let options = "--unshare-user --unshare-all --die-with-parent --ro-bind /usr /usr --symlink usr/bin /bin \
        --symlink usr/sbin /sbin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --proc /proc --dev /dev \
        --tmpfs /tmp --clearenv --setenv PATH /usr/local/bin:/usr/bin:/bin --";
    let options = std::iter::once("bwrap").chain(options.split_whitespace());
    Ok(options.chain(command.iter().copied()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use faas_test_support::needs;

    #[test]
    fn the_command_runs_with_its_words_as_they_are() {
        needs!(Bwrap);
        let argv = super::argv(&["echo", "a  b"]).unwrap();
        crate::helper::spawn(&argv, Some("a  b\n")).unwrap();
    }
}
