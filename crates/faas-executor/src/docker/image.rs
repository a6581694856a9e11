//! Images as the engine has them: their names, what they say of programs, whether they fit the engine's host. No I/O.

use bollard::models::ImageInspect;

use crate::sandbox::ImageDefaults;

/// A name taken apart for a pull (the distribution project's reference grammar).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    /// With the registry, where the name has one.
    pub(super) repository: &'a str,
    /// A tag or a digest. Without one an engine would fetch every tag there is.
    pub(super) tag: &'a str,
}

impl<'a> Reference<'a> {
    pub(super) fn parse(image: &'a str) -> Self {
        if let Some((repository, digest)) = image.split_once('@') {
            // A tag beside a digest says nothing more.
            let repository = split_tag(repository).map_or(repository, |(repository, _)| repository);
            return Self { repository, tag: digest };
        }
        match split_tag(image) {
            Some((repository, tag)) => Self { repository, tag },
            None => Self { repository: image, tag: "latest" },
        }
    }

    /// The registry by its host, where the name has one: a first part with a dot or a port, or `localhost`.
    pub(super) fn registry(&self) -> Option<&'a str> {
        let (first, _) = self.repository.split_once('/')?;
        (first.contains(['.', ':']) || first == "localhost").then_some(first)
    }
}

/// A colon after the last slash begins a tag; one before it, a port.
fn split_tag(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))
}

/// Whether a name is an id of an image and not one that a registry knows.
pub(super) fn is_id(image: &str) -> bool {
    image.starts_with("sha256:")
}

/// What an image is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ImageFacts {
    pub(super) defaults: ImageDefaults,
    os: String,
    architecture: String,
}

impl ImageFacts {
    pub(super) fn new(image: ImageInspect) -> Self {
        let config = image.config.unwrap_or_default();
        let env = config.env.unwrap_or_default();
        let env = env.iter().filter_map(|line| line.split_once('='));
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            defaults: ImageDefaults {
                env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                working_dir: given(config.working_dir),
                user: given(config.user),
                entrypoint: config.entrypoint.unwrap_or_default(),
                cmd: config.cmd.unwrap_or_default(),
            },
            os: image.os.unwrap_or_default(),
            architecture: image.architecture.unwrap_or_default(),
        }
    }

    /// Why its programs cannot run on a host of `machine` (as `uname -m` says it), if so. An image says it in the words
    /// of Go (OCI image specification, "Properties").
    pub(super) fn misfit(&self, machine: &str) -> Option<String> {
        let fitting: &[&str] = match machine {
            "x86_64" => &["amd64", "386"],
            "aarch64" => &["arm64", "arm"],
            other => &[other],
        };
        let linux = self.os.is_empty() || self.os == "linux";
        let fits = self.architecture.is_empty() || fitting.contains(&self.architecture.as_str());
        (!linux || !fits).then(|| {
            format!(
                "it is for {}/{} and the engine's host is linux/{}: fetch or build it for that platform",
                self.os,
                self.architecture,
                fitting.first().copied().unwrap_or(machine)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{ImageConfig, ImageInspect};

    use super::{ImageFacts, Reference};

    #[test]
    fn a_name_is_taken_apart_at_tag_or_digest() {
        for (image, repository, tag, registry) in [
            ("alpine", "alpine", "latest", None),
            ("alpine:3.20", "alpine", "3.20", None),
            ("library/alpine", "library/alpine", "latest", None),
            ("localhost/a", "localhost/a", "latest", Some("localhost")),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "latest", Some("127.0.0.1:5000")),
            ("127.0.0.1:5000/a:1", "127.0.0.1:5000/a", "1", Some("127.0.0.1:5000")),
            ("example.org/a:1@sha256:ab", "example.org/a", "sha256:ab", Some("example.org")),
        ] {
            let parsed = Reference::parse(image);
            assert_eq!((parsed.repository, parsed.tag), (repository, tag), "{image}");
            assert_eq!(parsed.registry(), registry, "{image}");
        }
    }

    fn image(os: &str, architecture: &str) -> ImageFacts {
        ImageFacts::new(ImageInspect {
            os: Some(os.into()),
            architecture: Some(architecture.into()),
            config: Some(ImageConfig {
                env: Some(vec!["PATH=/bin".into(), "A=b=c".into(), "BROKEN".into()]),
                working_dir: Some(String::new()),
                user: Some("app".into()),
                ..ImageConfig::default()
            }),
            ..ImageInspect::default()
        })
    }

    #[test]
    fn what_an_image_says_of_programs_is_kept() {
        let defaults = image("linux", "amd64").defaults;
        assert_eq!(defaults.env, [("PATH".into(), "/bin".into()), ("A".into(), "b=c".into())]);
        assert_eq!((defaults.working_dir, defaults.user.as_deref()), (None, Some("app")));
    }

    #[test]
    fn an_image_for_another_machine_is_known() {
        assert_eq!(image("linux", "amd64").misfit("x86_64"), None);
        assert_eq!(image("linux", "386").misfit("x86_64"), None);
        assert_eq!(image("", "").misfit("x86_64"), None);
        assert!(image("linux", "arm64").misfit("x86_64").unwrap().contains("linux/arm64"));
        assert!(image("windows", "amd64").misfit("x86_64").is_some());
        assert!(image("linux", "amd64").misfit("aarch64").unwrap().contains("linux/arm64"));
    }
}
