/* The benchmark's client: a tight loop, so that what is measured is the mount and not the client.
 *
 *   client stat   ROOT LIST   lstat each name of the file LIST
 *   client open   ROOT LIST   open, read and close each (after an untimed lstat of each)
 *   client create ROOT COUNT  create, close and unlink COUNT files in ROOT/created
 *   client walk   ROOT -      readdir and lstat everything below ROOT/many, without xattrs
 *
 * Prints the number of operations and the seconds they took. Any failing call ends it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char content[1 << 20];

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static char **read_names(const char *path, long *count)
{
	FILE *list = fopen(path, "r");
	char *line = NULL, **names = NULL;
	size_t room = 0;
	long capacity = 0;
	if (!list)
		err(1, "%s", path);
	*count = 0;
	while (getline(&line, &room, list) > 0) {
		line[strcspn(line, "\n")] = 0;
		if (*count == capacity) {
			capacity = capacity ? capacity * 2 : 1024;
			names = realloc(names, capacity * sizeof *names);
		}
		if (!names || !(names[(*count)++] = strdup(line)))
			err(1, "no memory");
	}
	fclose(list);
	return names;
}

static void stat_all(char **names, long count)
{
	struct stat status;
	for (long i = 0; i < count; i++)
		if (lstat(names[i], &status))
			err(1, "lstat %s", names[i]);
}

static void open_all(char **names, long count)
{
	for (long i = 0; i < count; i++) {
		int file = open(names[i], O_RDONLY);
		if (file < 0 || read(file, content, sizeof content) <= 0)
			err(1, "read %s", names[i]);
		close(file);
	}
}

static void create_all(long count)
{
	char name[64];
	for (int pass = 0; pass < 2; pass++)
		for (long i = 0; i < count; i++) {
			snprintf(name, sizeof name, "created/file-%06ld", i);
			if (pass) {
				if (unlink(name))
					err(1, "unlink %s", name);
				continue;
			}
			int file = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
			if (file < 0)
				err(1, "create %s", name);
			close(file);
		}
}

static long walk(int parent, const char *name)
{
	int directory = openat(parent, name, O_RDONLY | O_DIRECTORY);
	DIR *stream = directory < 0 ? NULL : fdopendir(directory);
	struct dirent *entry;
	struct stat status;
	long found = 0;
	if (!stream)
		err(1, "directory %s", name);
	while ((entry = readdir(stream))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW))
			err(1, "stat %s", entry->d_name);
		found++;
		if (S_ISDIR(status.st_mode))
			found += walk(directory, entry->d_name);
	}
	closedir(stream);
	return found;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "usage: client stat|open|create|walk ROOT LIST|COUNT|-");
	const char *mode = argv[1];
	long count = 0;
	int listed = !strcmp(mode, "stat") || !strcmp(mode, "open");
	char **names = listed ? read_names(argv[3], &count) : NULL;
	if (chdir(argv[2]))
		err(1, "%s", argv[2]);
	if (!strcmp(mode, "open"))
		stat_all(names, count);
	double start = now();
	if (!strcmp(mode, "stat"))
		stat_all(names, count);
	else if (!strcmp(mode, "open"))
		open_all(names, count);
	else if (!strcmp(mode, "create"))
		create_all(count = atol(argv[3]));
	else if (!strcmp(mode, "walk"))
		count = walk(AT_FDCWD, "many");
	else
		errx(2, "unknown mode %s", mode);
	printf("%ld %.9f\n", count, now() - start);
	return 0;
}
