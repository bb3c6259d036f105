"""The sources of the course's notebooks, installed as miniclip.course.parts. docs/course.md."""
