//! What an image says of its programs: `GREETING=hello`, the directory `/var`, the user `app`, an entrypoint that is not
//! there (`images/users.sh`).

use faas_executor::ExecuteSpec;
use faas_types::ErrorCode;

use crate::subject::Subject;

const LINE: &str = "echo $GREETING $(pwd) $(id -un)";

pub(crate) async fn an_images_environment_directory_and_user_apply(subject: &Subject) {
    if subject.has_users() {
        assert_eq!(subject.stdout(subject.shell(LINE)).await, "hello /var app\n");
    } else {
        subject.refused(subject.shell(LINE), ErrorCode::InvalidRequest).await;
    }
    let root = ExecuteSpec { user: Some("0".to_owned()), ..subject.shell(LINE) };
    assert_eq!(subject.stdout(root).await, "hello /var root\n");
}

pub(crate) async fn the_request_goes_before_the_image(subject: &Subject) {
    let spec = ExecuteSpec {
        env: vec![("GREETING".to_owned(), "bye".to_owned())],
        working_dir: Some("/tmp".to_owned()),
        user: Some("root".to_owned()),
        ..subject.shell(LINE)
    };
    assert_eq!(subject.stdout(spec).await, "bye /tmp root\n");
    let empty = ExecuteSpec {
        env: vec![("GREETING".to_owned(), String::new())],
        user: Some("root".to_owned()),
        ..subject.shell("echo \"[${GREETING-unset}]\"")
    };
    assert_eq!(subject.stdout(empty).await, "[]\n");
}
