//! What is wrong with a config file: all of it at once, in rustc's form.
//!
//! Nothing that came from a variable is ever in a message, and passwords in the shown lines are
//! starred out.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// The stable number of a kind of mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    Unreadable,
    Syntax,
    Missing,
    WrongType,
    UnknownKey,
    OutOfRange,
    Malformed,
    Contradiction,
    Variable,
    LiteralSecret,
    RefusedProperty,
    Unsupported,
    Insecure,
}

impl Code {
    pub const ALL: [Self; 13] = [
        Self::Unreadable,
        Self::Syntax,
        Self::Missing,
        Self::WrongType,
        Self::UnknownKey,
        Self::OutOfRange,
        Self::Malformed,
        Self::Contradiction,
        Self::Variable,
        Self::LiteralSecret,
        Self::RefusedProperty,
        Self::Unsupported,
        Self::Insecure,
    ];

    /// The code as it is printed; one that was released is never given to another mistake.
    pub fn id(self) -> &'static str {
        match self {
            Self::Unreadable => "E0100",
            Self::Syntax => "E0101",
            Self::Missing => "E0102",
            Self::WrongType => "E0103",
            Self::UnknownKey => "E0104",
            Self::OutOfRange => "E0105",
            Self::Malformed => "E0106",
            Self::Contradiction => "E0107",
            Self::Variable => "E0108",
            Self::LiteralSecret => "E0109",
            Self::RefusedProperty => "E0110",
            Self::Unsupported => "E0111",
            Self::Insecure => "E0112",
        }
    }

    /// What the code means and what to do, for whoever looks it up.
    pub fn explain(self) -> &'static str {
        match self {
            Self::Unreadable => {
                "The config file could not be read, is larger than 64 KiB, or is not UTF-8 text. \
                 Check the path, its permissions, and that it is a config file."
            }
            Self::Syntax => {
                "The file is not TOML, or names a key twice. The caret is where reading stopped; \
                 the cause may stand just before it."
            }
            Self::Missing => {
                "A key without a default is not in the file. The help line shows one to copy."
            }
            Self::WrongType => {
                "The value is of another TOML type than the key takes: durations, sizes and words \
                 are in quotes, numbers and true or false are not."
            }
            Self::UnknownKey => {
                "The file has a key that nothing reads. It is refused, since a misspelt key would \
                 silently leave its default in force."
            }
            Self::OutOfRange => "The value is of the right kind, but outside the key's bounds.",
            Self::Malformed => "The value's text is not of the form that the key takes.",
            Self::Contradiction => {
                "Two values are right by themselves, but cannot both hold. The carets show both."
            }
            Self::Variable => {
                "A string names an environment variable that is not set and has no default, or its \
                 ${…} is not closed or named right. ${NAME:default} gives a default; ${{x}} is the \
                 literal text ${x}."
            }
            Self::LiteralSecret => {
                "The file holds a password. Files are copied, committed and backed up: name a \
                 variable (${NAME}), or a file that holds the secret."
            }
            Self::RefusedProperty => {
                "The Kafka property is one that the worker must set itself, or one that would \
                 weaken TLS or load foreign code."
            }
            Self::Unsupported => "The file asks for something that this release does not do.",
            Self::Insecure => {
                "The setting would open the worker or the database connection to others."
            }
        }
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    /// Lower case, without a full stop.
    pub title: String,
    /// Where, in bytes of the file; `None` for what is not there.
    pub span: Option<Range<usize>>,
    /// Stands at the caret.
    pub label: String,
    /// Other places that have to do with it.
    pub also: Vec<(Range<usize>, String)>,
    pub help: Option<String>,
}

impl Problem {
    pub(super) fn new(code: Code, title: impl Into<String>) -> Self {
        Self {
            code,
            title: title.into(),
            span: None,
            label: String::new(),
            also: Vec::new(),
            help: None,
        }
    }

    pub(super) fn at(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.span = Some(span);
        self.label = label.into();
        self
    }

    pub(super) fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.also.push((span, label.into()));
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Everything that is wrong with one config file; never empty.
///
/// `Display` is [`ConfigErrors::render`] without colour.
#[derive(Debug, Clone)]
pub struct ConfigErrors {
    path: PathBuf,
    /// Already masked.
    source: String,
    problems: Vec<Problem>,
}

/// Problems that are shown in full: more is no help, and rendering them takes time.
const MAX_SHOWN: usize = 20;

impl ConfigErrors {
    /// `masked` is the file's text after [`super::mask::mask`].
    pub(super) fn new(path: &Path, masked: String, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| {
            (problem.span.as_ref().map_or(usize::MAX, |span| span.start), problem.code)
        });
        Self { path: path.to_owned(), source: masked, problems }
    }

    /// In the order of the file; what is missing comes last.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// All problems with their lines and carets, one blank line between two.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let path = self.path.to_string_lossy();
        let mut text = String::new();
        for problem in self.problems.iter().take(MAX_SHOWN) {
            text.push_str(&renderer.render(&[self.group(problem, &path)]));
            text.push_str("\n\n");
        }
        let count = self.problems.len();
        let errors = if count == 1 { "error" } else { "errors" };
        text.push_str(&format!("{count} {errors} in {path}"));
        if count > MAX_SHOWN {
            text.push_str(&format!(", {} not shown", count - MAX_SHOWN));
        }
        text.push('\n');
        text
    }

    fn group<'a>(&'a self, problem: &'a Problem, path: &'a str) -> Group<'a> {
        let title = Level::ERROR.primary_title(problem.title.as_str()).id(problem.code.id());
        let group = match &problem.span {
            Some(span) => {
                let first = AnnotationKind::Primary
                    .span(self.whole_chars(span))
                    .label((!problem.label.is_empty()).then_some(problem.label.as_str()));
                let others = problem.also.iter().map(|(span, label)| {
                    AnnotationKind::Context.span(self.whole_chars(span)).label(label.as_str())
                });
                let snippet = Snippet::source(self.source.as_str()).path(path);
                title.element(snippet.annotation(first).annotations(others))
            }
            None => title.element(Origin::path(path)),
        };
        match &problem.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }

    /// The span within the source, on character bounds: the renderer slices by it.
    fn whole_chars(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.source.floor_char_boundary(span.start);
        start..self.source.ceil_char_boundary(span.end).max(start)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable_and_unique() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code.id(), format!("E01{number:02}"));
            assert!(code.explain().ends_with('.'));
        }
    }
}
