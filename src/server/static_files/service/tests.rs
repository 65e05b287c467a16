#![allow(clippy::unwrap_used)]
use std::os::unix::fs::symlink;

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http_body_util::BodyExt;

use super::*;
use crate::server::testing;

struct Site {
    outer: testing::Folder,
    files: Arc<StaticFiles>,
}

/// What was answered: the status, the fields and the content.
struct Answer {
    status: u16,
    fields: HeaderMap,
    content: Vec<u8>,
}

impl Answer {
    fn field(&self, name: HeaderName) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Site {
    fn at(mount: &str) -> Self {
        let outer = testing::Folder::new();
        for folder in ["root", "root/sub", "root/empty", "root/.git", "root/a b", "root/with_link", "outside"] {
            std::fs::create_dir(outer.path(folder)).unwrap();
        }
        for (path, content) in [
            ("root/index.html", "<p>index"),
            ("root/sub/index.html", "<p>sub"),
            ("root/data.json", "0123456789"),
            ("root/x%y", "percent"),
            ("root/nothing.txt", ""),
            ("root/.env", "secret"),
            ("root/.git/config", "secret"),
            ("outside/secret", "secret"),
        ] {
            std::fs::write(outer.path(path), content).unwrap();
        }
        symlink("../outside/secret", outer.path("root/link")).unwrap();
        symlink("../outside", outer.path("root/links")).unwrap();
        symlink("../../outside/secret", outer.path("root/with_link/index.html")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, outer.path("root/pipe"), 0o600.into()).unwrap();
        let files = Arc::new(StaticFiles::open(&outer.path("root"), mount).unwrap());
        Self { outer, files }
    }

    fn ask(&self, method: Method, target: &str, lines: &[(HeaderName, &str)]) -> Answer {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(name, HeaderValue::from_str(value).unwrap());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let below = target.get(self.files.mount.len()..).unwrap();
            let (head, body) = self.files.answer(&method, below, &fields).await.into_parts();
            let content = body.collect().await.unwrap().to_bytes().to_vec();
            Answer { status: head.status.as_u16(), fields: head.headers, content }
        })
    }

    fn get(&self, target: &str) -> Answer {
        self.ask(Method::GET, target, &[])
    }

    /// Long ago, so that a file's tag is strong. Nobody but the kernel sets `ctime`: so it is said what time it is.
    fn tag_later(&self, path: &str) -> Validators {
        let metadata = std::fs::metadata(self.outer.path(path)).unwrap();
        validators(&metadata, SystemTime::now() + Duration::from_secs(3_600))
    }
}

#[test]
fn files_and_folders() {
    let site = Site::at("/assets/");
    let answer = site.get("/assets/data.json?v=1");
    assert_eq!((answer.status, &*answer.content), (200, &b"0123456789"[..]));
    assert_eq!(answer.field(CONTENT_TYPE), "application/json");
    assert_eq!((answer.field(CONTENT_LENGTH), answer.field(ACCEPT_RANGES)), ("10", "bytes"));
    let answer = site.get("/assets/");
    assert_eq!((&*answer.content, answer.field(CONTENT_TYPE)), (&b"<p>index"[..], "text/html; charset=utf-8"));
    assert_eq!(site.get("/assets/sub/").content, b"<p>sub");
    assert_eq!(site.get("/assets/s%75b/").content, b"<p>sub");
    assert_eq!(site.get("/assets/x%25y").content, b"percent");
    let answer = site.get("/assets/nothing.txt");
    assert_eq!((answer.status, answer.field(CONTENT_LENGTH)), (200, "0"));
    let answer = site.ask(Method::HEAD, "/assets/data.json", &[]);
    assert_eq!((answer.status, answer.field(CONTENT_LENGTH), &*answer.content), (200, "10", &b""[..]));
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = site.ask(method, "/assets/data.json", &[]);
        assert_eq!((answer.status, answer.field(ALLOW)), (405, "GET, HEAD"));
    }
    let site = Site::at("/");
    assert_eq!(site.get("/").content, b"<p>index");
    assert_eq!(site.get("/data.json").status, 200);
}

#[test]
fn nothing_outside_and_nothing_hidden() {
    for mount in ["", "/assets"] {
        let site = Site::at(mount);
        for path in [
            "/link",
            "/links/secret",
            "/links/",
            "/links",
            "/with_link/",
            "/.env",
            "/%2eenv",
            "/.git/config",
            "/sub/../.env",
            "/../outside/secret",
            "/%2e%2e/outside/secret",
            "/sub/%2E./%2e./outside/secret",
            "/..%2foutside/secret",
            "/sub%2findex.html",
            "/./data.json",
            "//etc/passwd",
            "//sub/index.html",
            "//sub",
            "/sub//",
            "/sub//index.html",
            "//evil.com/%2e%2e",
            "/data.json/",
            "/data.json%00",
            "/data.json%",
            "/data.json%2",
            "/data.json%zz",
            "/data.json/more",
            "/none",
            "/empty/",
            "/pipe",
            "/sub\\index.html",
        ] {
            let answer = site.get(&format!("{mount}{path}"));
            assert_eq!((answer.status, &*answer.content), (404, &b""[..]), "{mount}{path}");
        }
    }
    let site = Site::at("/assets");
    for target in ["/assetsdata.json", "/assets*", "/assets%2Fdata.json"] {
        assert_eq!(site.get(target).status, 404, "{target}");
    }
}

#[test]
fn redirects_keep_the_mount_and_the_query_and_lead_to_no_other_host() {
    for (mount, target, location) in [
        ("/assets", "/assets/sub", "/assets/sub/"),
        ("/assets", "/assets/sub?a=b&c=//d", "/assets/sub/?a=b&c=//d"),
        ("/assets", "/assets", "/assets/"),
        ("/assets", "/assets?a", "/assets/?a"),
        ("", "/sub", "/sub/"),
        ("", "/a%20b?", "/a%20b/?"),
        ("", "/%73ub", "/sub/"),
        ("", "/\\evil.com", "/%5Cevil.com/"),
        ("//a//", "/a/sub", "/a/sub/"),
    ] {
        let site = Site::at(mount);
        std::fs::create_dir(site.outer.path("root/\\evil.com")).unwrap();
        let answer = site.get(target);
        assert_eq!((answer.status, answer.field(LOCATION)), (307, location), "{target}");
    }
}

#[test]
fn conditions_and_ranges() {
    let site = Site::at("");
    let whole = site.get("/data.json");
    let (tag, date) = (whole.field(ETAG), whole.field(LAST_MODIFIED));
    assert!(tag.starts_with("W/\"") && !date.is_empty());
    for (name, value) in [(IF_NONE_MATCH, tag), (IF_MODIFIED_SINCE, date)] {
        let answer = site.ask(Method::GET, "/data.json", &[(name, value)]);
        assert_eq!((answer.status, &*answer.content), (304, &b""[..]));
        assert_eq!((answer.field(ETAG), answer.field(LAST_MODIFIED)), (tag, date));
        assert_eq!(answer.field(CONTENT_TYPE), "");
    }
    let answer = site.ask(Method::GET, "/data.json", &[(IF_MATCH, "\"other\"")]);
    assert_eq!((answer.status, answer.content.len()), (412, 0));
    let part = site.ask(Method::GET, "/data.json", &[(RANGE, "bytes=2-4")]);
    assert_eq!((part.status, &*part.content), (206, &b"234"[..]));
    assert_eq!((part.field(CONTENT_RANGE), part.field(CONTENT_LENGTH)), ("bytes 2-4/10", "3"));
    assert_eq!((part.field(CONTENT_TYPE), part.field(ETAG)), ("application/json", tag));
    let none = site.ask(Method::GET, "/data.json", &[(RANGE, "bytes=10-")]);
    assert_eq!((none.status, none.field(CONTENT_RANGE), none.content.len()), (416, "bytes */10", 0));
    for range in ["bytes=0-1,3-4", "lines=1-2", "rubbish"] {
        let answer = site.ask(Method::GET, "/data.json", &[(RANGE, range)]);
        assert_eq!((answer.status, answer.content.len()), (200, 10), "{range}");
    }
    // it may have changed within the same tick of the clock
    let answer = site.ask(Method::GET, "/data.json", &[(RANGE, "bytes=2-4"), (IF_RANGE, tag)]);
    assert_eq!((answer.status, answer.content.len()), (200, 10));
}

#[test]
fn validators_tell_contents_apart_whatever_their_dates() {
    let site = Site::at("");
    let path = site.outer.path("root/data.json");
    let epoch = |path: &Path| File::options().write(true).open(path).unwrap().set_modified(UNIX_EPOCH).unwrap();
    epoch(&path);
    let first = site.tag_later("root/data.json");
    assert!(!first.is_weak && first.etag().starts_with('"'));
    assert_eq!(site.tag_later("root/data.json").tag, first.tag);
    // as an image that gives all files one date: the same size, another content
    std::fs::write(site.outer.path("new"), "9876543210").unwrap();
    epoch(&site.outer.path("new"));
    std::fs::rename(site.outer.path("new"), &path).unwrap();
    let second = site.tag_later("root/data.json");
    assert_ne!(second.tag, first.tag);
    // no date of 1970 is told, and none from the future
    let modified = second.modified.unwrap();
    assert!(modified > UNIX_EPOCH + FIRST_DATE && modified <= SystemTime::now());
    let future = SystemTime::now() + Duration::from_secs(7_200);
    File::options().write(true).open(&path).unwrap().set_modified(future).unwrap();
    let third = site.tag_later("root/data.json");
    assert_eq!((third.modified, third.is_weak), (None, true));
}

#[test]
fn names_of_a_path() {
    let names = |path: &str| Wanted::parse(path).map(|wanted| (wanted.names.join(&b'|'), wanted.is_folder));
    assert_eq!(names(""), Some((vec![], false)));
    assert_eq!(names("/"), Some((vec![], true)));
    assert_eq!(names("/a/%62/c%2Bd"), Some((b"a|b|c+d".to_vec(), false)));
    assert_eq!(names("/a/"), Some((b"a".to_vec(), true)));
    for path in ["a", "//", "/a//", "/.", "/..", "/a/.b", "/%2e", "/a%2fb", "/a%00", "/%", "/%g0", "/%é"] {
        assert_eq!(names(path), None, "{path}");
    }
}
