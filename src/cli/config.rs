//! `crossfade config`: looks at a config file; connects to nothing and changes nothing.

use std::io::{self, Write};
use std::path::PathBuf;

use super::{after_output, exit};
use crate::config::{self, ConfigErrors, Loaded};

/// Where the config file is. For every verb that needs one.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigFile {
    /// Config file
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        env = "CROSSFADE_CONFIG",
        default_value = "crossfade.toml"
    )]
    pub path: PathBuf,
}

impl ConfigFile {
    /// Reads it, with the process's environment variables.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it. A variable that is not Unicode counts as not set.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        config::load(&self.path, &|name| std::env::var(name).ok())
    }
}

#[derive(Debug, Clone, clap::Subcommand)]
pub enum ConfigCommand {
    /// Check a config file; connect to nothing
    Check {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print every value that counts, secrets masked
    Print {
        #[command(flatten)]
        file: ConfigFile,
        /// Say behind each value where it came from
        #[arg(long)]
        origin: bool,
    },
    /// Print the JSON schema of config files, for editors
    Schema,
    /// Print a config file with every key, its range and its default
    Reference,
}

/// Carries out `command` and returns the exit code: 0 done, 2 for a config file that is wrong.
///
/// `colour` is for what goes to `err`.
pub fn run(command: &ConfigCommand, out: &mut dyn Write, err: &mut dyn Write, colour: bool) -> u8 {
    after_output(answer(command, out, err, colour))
}

fn answer(
    command: &ConfigCommand,
    out: &mut dyn Write,
    err: &mut dyn Write,
    colour: bool,
) -> io::Result<u8> {
    let text = match command {
        ConfigCommand::Check { file } => file.load().map(|loaded| {
            let settings = &loaded.settings;
            let digest = config::digest(settings);
            let table = format!("{}.{}", settings.table.schema, settings.table.name);
            format!(
                "{}: no errors (migration {}, table {table}, digest {})\n",
                file.path.display(),
                settings.name,
                &digest[..12],
            )
        }),
        ConfigCommand::Print { file, origin } => file.load().map(|loaded| loaded.print(*origin)),
        ConfigCommand::Schema => Ok(config::schema()),
        ConfigCommand::Reference => Ok(config::reference()),
    };
    match text {
        Ok(text) => {
            out.write_all(text.as_bytes())?;
            out.flush()?;
            Ok(exit::DONE)
        }
        Err(errors) => {
            // The verdict stands even where nobody reads the reasons.
            let shown = err.write_all(errors.render(colour).as_bytes()).and_then(|()| err.flush());
            drop(shown);
            Ok(exit::USAGE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails as a pipe does whose reader went away.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn check(path: &str) -> ConfigCommand {
        ConfigCommand::Check { file: ConfigFile { path: path.into() } }
    }

    #[test]
    fn a_closed_pipe_is_a_quiet_success() {
        assert_eq!(run(&ConfigCommand::Schema, &mut Closed, &mut Vec::new(), false), exit::DONE);
    }

    #[test]
    fn a_wrong_file_is_a_usage_error_even_if_nobody_reads_it() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(run(&check("no/such/file"), &mut out, &mut err, false), exit::USAGE);
        assert!(out.is_empty() && String::from_utf8(err).unwrap().contains("E0100"));
        assert_eq!(run(&check("no/such/file"), &mut out, &mut Closed, false), exit::USAGE);
    }

    #[test]
    fn reads_its_flags() {
        use clap::Parser;
        #[derive(clap::Parser)]
        struct Root {
            #[command(subcommand)]
            command: ConfigCommand,
        }
        let root = Root::try_parse_from(["x", "print", "-c", "a.toml", "--origin"]).unwrap();
        assert!(matches!(root.command, ConfigCommand::Print { file, origin: true }
            if file.path.as_os_str() == "a.toml"));
    }
}
