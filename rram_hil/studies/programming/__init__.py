"""The study of programming methods: methods x chips x target sets x seeds at equal conditions."""
